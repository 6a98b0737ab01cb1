"""Models of tables for Trivet: scikit-learn, LightGBM and XGBoost."""
